-- Which app on the phone, for servers that wake several; null: the only one.
ALTER TABLE devices ADD COLUMN app_id TEXT;
-- When the push target was last registered; null: when the device enrolled. A gateway's word that a target is
-- dead counts only if it is newer.
ALTER TABLE devices ADD COLUMN push_registered_at BIGINT;
