"""Recipes that train the shipped models and export them as model packages. They need the extra ``train`` (torch)."""
