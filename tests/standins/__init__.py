"""Loopback stand-ins for the services that the playground talks to."""
