"""A Kubernetes API server that looks at the manifests."""
