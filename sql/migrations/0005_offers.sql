-- Which workers a submit may hand its item to while they wait for work: see sql/functions/043_hand_over.sql.

-- From which lanes a worker takes what is handed to it. Written when it has looked at what it serves, never when it comes
-- to wait or gets work: submits would walk over the dead rows of that.
CREATE TABLE agentos.offers (
    lane      integer NOT NULL,
    worker_id bigint NOT NULL,
    room      integer NOT NULL,     -- how many of the items handed to it lately may be open
    PRIMARY KEY (lane, worker_id)
);
CREATE INDEX offers_worker ON agentos.offers ((worker_id + 0));  -- not taken by who looks for a lane

-- False: what it offers was said before a limit, a pause or a weight of today.
ALTER TABLE agentos.workers ADD COLUMN offering boolean NOT NULL DEFAULT false;

-- A lease that came with its submit has the claim_no -1. By item: whoever looks need not walk over what has ended. + 0: so
-- that who looks takes this index and no other, whatever the statistics say.
CREATE INDEX lease_held_handed ON agentos.lease_held ((worker_id + 0), (item_id + 0)) WHERE claim_no = -1;
