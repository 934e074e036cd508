"""What is deployed: image, Compose, units."""
