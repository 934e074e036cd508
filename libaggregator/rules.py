"""Names of rules: rule FQDN and rule selector (`docs/messages.md`, section 4)."""


def rule_fqdn(component: str) -> str:
    """Return a component without one trailing `.report`."""
    return component.removesuffix(".report")


def rule_selector(rule_fqdn: str, error_key: str) -> str:
    """Return the name that a rule and an error key have together: `rule_fqdn|ERROR_KEY`."""
    return f"{rule_fqdn}|{error_key}"
