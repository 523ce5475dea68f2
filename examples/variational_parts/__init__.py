"""What the study of variational inference is made of: training, methods, the choice by validation, tables, a figure."""
