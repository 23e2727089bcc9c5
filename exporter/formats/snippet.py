"""What the snippets of all formats share."""

FIRST_INPUTS = '{k.split("/", 2)[2]: v for k, v in np.load("golden.npz").items() if k.startswith("0/input/")}'
