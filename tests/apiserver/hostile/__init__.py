"""Bad input and its answer, row by row. A test's id or name begins with the number of its row: `pytest -k row10`.

| rows | where |
|---|---|
| 1-13, 46: bodies, media types, patches, fields | test_bodies.py, test_fields.py |
| 14-21, 30, 31: objects and their changes | test_refused_objects.py |
| 22-28, 36, 44: queries, paths, headers | test_questions.py |
| 29, 32-34, 37, 41: what rules forbid | test_rules.py |
| 1, 2, 35, 38-40, 44-46 on the wire | test_wire.py |
| 42: paths out of a volume | test_volumes.py |
| 47: a newline at the end of every text | test_newlines.py |
| whatever else comes | test_fuzz.py, test_openapi_examples.py |

Row 34's owners that block a deletion are in test_owner_references.py, the rest of its rules in test_escalation.py,
test_nodes.py and admission/. Row 43 (webhooks) comes with webhooks.
"""
