"""Winnow: is this defense really robust, or has the attack merely failed?"""
