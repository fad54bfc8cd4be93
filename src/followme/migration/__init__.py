"""Step 3: carry a component from one data centre to another, and never lose it on the way."""
