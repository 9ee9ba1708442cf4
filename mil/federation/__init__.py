"""Train one model over several hospitals; patient data never leaves its hospital.

A hospital (`hospital.Hospital`) answers questions with sums, weights and gradients. Each answer is a
`messages.Message`, passes one gate (`privacy.Gate`) and is written to the hospital's audit file. The coordinator
(`protocol`) knows no engine: `engines.local` calls hospitals in the same process.
"""
