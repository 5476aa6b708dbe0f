"""Display: what a person sees live, and what they may ask for; shared by the live session and every view."""
