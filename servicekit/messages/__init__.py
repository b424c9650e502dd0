"""Messages of the contract: to JSON and back, checked against their options, and pages of them."""
