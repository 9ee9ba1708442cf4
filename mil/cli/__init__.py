"""The `mil` command: one verb, one function, one screen. Heavy libraries are imported by the verb that needs them."""
