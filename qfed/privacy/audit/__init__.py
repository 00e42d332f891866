"""The audit: canaries through the real plan, gates on what comes out, lower bounds on epsilon beside them.

canaries   records whose gradient is known exactly, and a model that has a coordinate for each of them
probes     the same for plans of zeroth-order steps: records whose loss along public directions is known exactly
gates      is the noise as strong, as fresh and as Gaussian as claimed, does a canary count for C and no more
bounds     epsilon that the canaries' scores prove, whatever the implementation claims
verdict    all of it as one value; needs neither torch nor an accountant, so reports may read it
"""
