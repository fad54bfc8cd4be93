"""Step 4, continuity: keep the sessions. The redirect, and the rules that it puts into edge switches."""
