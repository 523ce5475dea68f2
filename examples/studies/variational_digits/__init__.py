"""What the study of variational inference is made of: methods, the choice by
validation, tables, a figure.
"""
