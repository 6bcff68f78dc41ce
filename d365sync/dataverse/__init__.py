"""The remote: Dataverse over HTTPS. MSAL and requests live here only. IO: HTTP."""
