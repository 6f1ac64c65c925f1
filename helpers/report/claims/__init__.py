"""What the report asserts, one file a chapter, chapter_NN.py: each claim with what makes it true.

`record` says what a claim is, `judging` holds it against the facts of an execution, `reading` finds in
notebooks which claims they name and, once executed, which of them do not hold. A new chapter's file is found
by itself.
"""
