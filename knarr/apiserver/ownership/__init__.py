"""Who owns which field: server-side apply and metadata.managedFields (KEP-555).

shapes      how values of a type merge and are owned: as a whole, field by field, item by item
fieldsets   sets of fields, as managedFields writes them (FieldsV1)
values      comparing, merging and pruning plain data by its shape
managers    the entries of managedFields, and how a write changes them
"""
