"""Tools that show what tokens hold, choose settings, and compare answers, on the user's own pictures."""
