"""braggscope"""
