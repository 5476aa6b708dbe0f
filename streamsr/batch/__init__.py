"""Archives: many sources to many recordings, exactly once each, on the cores and GPUs of one machine or of many.

    inputs ──► outputs ──► journal ──► run ──► executor ──► perform (in a worker) ──► publish
    files      one name    who does    what    local,       job, check, hashes        rename, then
    found      each        what        next    Ray                                    the journal's word

`run` alone writes the journal and gives results their names; workers only ever write into a folder of their own.
"""
