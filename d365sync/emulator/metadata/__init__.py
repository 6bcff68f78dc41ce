"""Table and column definitions as ``EntityDefinitions`` gives them.

Source: Query schema definitions using the Web API.
"""
