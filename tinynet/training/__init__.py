"""How is a net trained? Recipes, schedules, runs, and what becomes of them."""
