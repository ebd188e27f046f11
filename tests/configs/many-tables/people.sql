CREATE TABLE people (name TEXT PRIMARY KEY, uid INTEGER, gid INTEGER, home TEXT);
INSERT INTO people VALUES ('ann', @UID@, @GID@, '@DIR@/home/ann');
INSERT INTO people VALUES ('ben', @UID@, @GID@, '@DIR@/home/ben');
