"""Acting: observation in, action chunk out. Torch-free."""
