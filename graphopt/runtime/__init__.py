"""The only room that runs models. Native code lives in a process whose death is an ordinary error."""
