"""Where models come from, and the inputs and preprocessing that come with them."""
