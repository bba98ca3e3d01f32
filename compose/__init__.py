"""Puts Nexus together: command line, settings, embedded servers, supervision."""
