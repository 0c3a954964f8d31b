-- What an item that depends on others works with: their results. It runs only when all of them completed.
CREATE FUNCTION agentos.needed_results(p_item bigint) RETURNS TABLE (name text, result text) LANGUAGE sql AS $$
    SELECT coalesce(w.key, w.item_id::text), coalesce(o.result::text, 'null')
      FROM agentos.item_deps d JOIN agentos.work_items w ON w.item_id = d.needs
      JOIN agentos.outcomes o ON o.item_id = d.needs AND o.status = 'completed'
     WHERE d.item_id = p_item ORDER BY w.seq
$$;
