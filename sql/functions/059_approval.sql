-- Questions to people: a wait that an answer ends.

-- Asks, and waits as `wait` does. What is shown is stored under the key of exactly this question.
CREATE FUNCTION agentos.ask(p_key text, p_task text, p_item bigint, p_worker bigint, p_token uuid, p_ordinal integer,
                            p_nth integer, p_arguments text, p_question text, p_shown text, p_sha256 text, p_options text[],
                            p_timeout_s float8, p_park boolean) RETURNS agentos.wait_reply LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agentos.fence_live(p_item, p_worker, p_token), agentos.lock_head(p_task);
    INSERT INTO agentos.approvals (ledger_key, item_id, task_id, question, shown, shown_sha256, options, asked_at)
    VALUES (p_key, p_item, p_task, p_question, p_shown::json, p_sha256, p_options, agentos.clock()) ON CONFLICT DO NOTHING;
    RETURN agentos.wait(p_key, p_task, p_item, p_worker, p_token, '@approval', p_ordinal, p_nth, p_arguments, NULL, NULL,
                        p_timeout_s, 0, p_park);
END $$;

-- A person's answer, in one commit with the end of the wait; the item is ready again. p_question: the question's id, or
-- how it begins; null: the only one that is open. p_sha256: of what the person saw, null if he was shown nothing. Returns
-- the question answered.
CREATE FUNCTION agentos.answer(p_task text, p_question text, p_approved boolean, p_option text, p_by text, p_sha256 text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE v agentos.approvals; v_reason text; v_open text[];
BEGIN
    PERFORM agentos.enter_fence(), agentos.require_task(p_task), agentos.lock_head(p_task);
    v_open := ARRAY(SELECT a.ledger_key FROM agentos.approvals a JOIN agentos.waits w USING (ledger_key)
                     WHERE a.task_id = p_task AND starts_with(a.ledger_key, coalesce(p_question, '')) ORDER BY a.asked_at);
    PERFORM agentos.require_one_question(p_task, p_question, v_open);
    SELECT * INTO v FROM agentos.approvals a WHERE a.ledger_key = v_open[1];
    PERFORM agentos.require_answer_fits(v, p_approved, p_option, p_sha256);
    SELECT k.reason INTO v_reason FROM agentos.waiting k WHERE k.item_id = v.item_id FOR UPDATE;
    UPDATE agentos.approvals a SET approved = p_approved, option = p_option, answered_by = p_by, answered_at = agentos.clock()
     WHERE a.ledger_key = v.ledger_key;
    PERFORM agentos.finish_wait(v.ledger_key, json_build_object('approved', p_approved, 'option', p_option, 'by', p_by,
                                'at', agentos.clock())), agentos.unpark(ARRAY[v.item_id], v_reason);
    PERFORM agentos.note(p_task, v.item_id, CASE WHEN p_approved THEN 'approved' ELSE 'rejected' END, NULL, NULL,
                         json_build_object('by', p_by, 'question', v.question, 'option', p_option, 'shown_sha256', v.shown_sha256));
    RETURN v.ledger_key;
END $$;

CREATE FUNCTION agentos.require_one_question(p_task text, p_question text, p_open text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(p_open) = 1 THEN RETURN; END IF;
    IF cardinality(p_open) > 1 THEN
        RAISE EXCEPTION 'task % waits for % answers: to %', p_task, cardinality(p_open), array_to_string(p_open, ', ')
            USING ERRCODE = 'AG030', HINT = 'say which question: --question ID, the first characters are enough';
    END IF;
    RAISE EXCEPTION 'task % is not waiting for an approval%', p_task, coalesce(' under the id ' || p_question, '')
        USING ERRCODE = 'AG011', HINT = 'see what it is doing: agentos show ' || p_task;
END $$;

CREATE FUNCTION agentos.require_answer_fits(p_asked agentos.approvals, p_approved boolean, p_option text, p_sha256 text)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_sha256 IS NOT NULL AND p_sha256 <> p_asked.shown_sha256 THEN
        RAISE EXCEPTION 'the answer is to other content: % was shown, % is asked', p_sha256, p_asked.shown_sha256
            USING ERRCODE = 'AG031', HINT = 'look at what is asked now: agentos show ' || p_asked.task_id;
    END IF;
    IF p_approved AND (p_option IS NULL) <> (p_asked.options IS NULL)
       OR p_option IS NOT NULL AND NOT coalesce(p_option = ANY (p_asked.options), false) THEN
        RAISE EXCEPTION 'the option % is not one of those of the question: %', coalesce(quote_literal(p_option), '(none)'),
            coalesce(array_to_string(p_asked.options, ', '), 'it has none') USING ERRCODE = 'AG032',
            HINT = 'answer with --option and one of them, or without when it has none; or --reject';
    END IF;
END $$;
