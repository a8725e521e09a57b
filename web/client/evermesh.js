// The browser client of Evermesh.
