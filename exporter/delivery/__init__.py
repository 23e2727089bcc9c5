"""How a model reaches apps in the field: small updates of a bundle, one sealed file, signatures, encryption."""
