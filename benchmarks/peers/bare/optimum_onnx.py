"""`optimum-cli export onnx`, and nothing else."""

from optimum.commands.optimum_cli import main

main()
