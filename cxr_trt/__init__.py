"""Scores chest X-rays for the 14 findings of ChestX-ray14. Research use only; not a medical device."""
