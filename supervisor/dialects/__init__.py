"""The protocols of job servers, one package each; the rest of the program depends on none of them."""
