"""Building blocks of attacks: the adapters to other libraries, and our own searches.

No plugin is here. Importing these modules imports torch; plugins do it inside their methods.
"""
