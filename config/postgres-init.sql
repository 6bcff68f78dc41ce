-- Run once by the database of compose.yaml, when its volume is empty: the second of the two databases.
CREATE DATABASE mirror OWNER d365sync;
