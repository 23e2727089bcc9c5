"""The evaluator of ML Programs: what a Core ML model computes, where Core ML is not."""
