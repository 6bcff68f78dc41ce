"""FetchXML, the query language of goal rollup queries: one tree, two independent readings of it.

``parse`` makes the tree, ``check`` refuses what a schema does not have, ``evaluate`` answers it over Python
rows (slow, obvious), ``compile`` turns it into SQL over the mirror. The two readings share the tree, the
date bounds and nothing else, so that each can catch the other's mistakes.

Pure.
"""
