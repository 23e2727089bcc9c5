"""What a module is made of: where its weights are used, its structure, dependencies and batch norm."""
