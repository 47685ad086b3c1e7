"""Building blocks of Winnow's own attacks: the ball, random streams, descent; no plugin is here.

Importing these modules imports torch; plugins do it inside their methods.
"""
