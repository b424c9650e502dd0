"""What runs Concerto elsewhere than on a laptop, and the checks of it."""
