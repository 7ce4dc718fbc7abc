"""Code that the stages share; imports none of them."""
