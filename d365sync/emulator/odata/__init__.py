"""OData as Dataverse speaks it: query options in, pages and annotations out.

Pure.
"""
