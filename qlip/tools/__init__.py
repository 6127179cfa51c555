"""Tools that show what a budget buys on the user's own pictures and questions."""
