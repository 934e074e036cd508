-- A database of an existing deployment at schema version 32, by docs/schema.md, sections 1 to 3: its tables, rows as
-- they are found there, and what others have put beside them.

CREATE TABLE public.advisor_ratings (
    org_id character varying NOT NULL,
    rule_fqdn character varying NOT NULL,
    error_key character varying NOT NULL,
    rated_at timestamp without time zone,
    last_updated_at timestamp without time zone,
    rating smallint,
    rule_id character varying DEFAULT '.'::character varying NOT NULL
);
CREATE TABLE public.cluster_rule_toggle (
    cluster_id character varying NOT NULL,
    rule_id character varying NOT NULL,
    disabled smallint NOT NULL,
    disabled_at timestamp without time zone,
    enabled_at timestamp without time zone,
    updated_at timestamp without time zone NOT NULL,
    disabled_check smallint,
    error_key character varying DEFAULT ''::character varying NOT NULL,
    org_id character varying DEFAULT '0'::character varying NOT NULL,
    CONSTRAINT cluster_rule_toggle_disabled_check CHECK (((disabled >= 0) AND (disabled <= 1)))
);
CREATE TABLE public.cluster_rule_user_feedback (
    cluster_id character varying NOT NULL,
    rule_id character varying NOT NULL,
    user_id character varying NOT NULL,
    message character varying NOT NULL,
    user_vote smallint NOT NULL,
    added_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL,
    error_key character varying DEFAULT ''::character varying NOT NULL,
    org_id character varying DEFAULT '0'::character varying NOT NULL
);
CREATE TABLE public.cluster_user_rule_disable_feedback (
    cluster_id character varying NOT NULL,
    user_id character varying NOT NULL,
    rule_id character varying NOT NULL,
    message character varying NOT NULL,
    added_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL,
    error_key character varying DEFAULT ''::character varying NOT NULL,
    org_id character varying DEFAULT '0'::character varying NOT NULL
);
CREATE TABLE public.consumer_error (
    topic character varying NOT NULL,
    partition integer NOT NULL,
    topic_offset integer NOT NULL,
    key character varying,
    produced_at timestamp without time zone NOT NULL,
    consumed_at timestamp without time zone NOT NULL,
    message character varying,
    error character varying NOT NULL
);
CREATE TABLE public.migration_info (
    version integer NOT NULL
);
CREATE TABLE public.recommendation (
    org_id integer NOT NULL,
    cluster_id character varying NOT NULL,
    rule_fqdn text NOT NULL,
    error_key character varying NOT NULL,
    rule_id character varying DEFAULT '.'::character varying NOT NULL,
    created_at timestamp without time zone DEFAULT timezone('utc'::text, now()),
    impacted_since timestamp without time zone
);
CREATE TABLE public.report (
    org_id integer NOT NULL,
    cluster character varying NOT NULL,
    report character varying NOT NULL,
    reported_at timestamp without time zone,
    last_checked_at timestamp without time zone,
    kafka_offset bigint DEFAULT 0 NOT NULL,
    gathered_at timestamp without time zone
);
CREATE TABLE public.report_info (
    org_id integer NOT NULL,
    cluster_id character varying NOT NULL,
    version_info character varying NOT NULL
);
CREATE TABLE public.rule_disable (
    org_id character varying NOT NULL,
    rule_id character varying NOT NULL,
    error_key character varying NOT NULL,
    justification character varying,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone
);
CREATE TABLE public.rule_hit (
    org_id integer NOT NULL,
    cluster_id character varying NOT NULL,
    rule_fqdn character varying NOT NULL,
    error_key character varying NOT NULL,
    template_data character varying NOT NULL,
    created_at timestamp without time zone
);

INSERT INTO public.migration_info VALUES (32);

-- the second cluster is in upper case and has NULL where a time may be missing; one organization is the largest there
INSERT INTO public.report VALUES
    (1, '5d5892d3-1f74-4ccf-91af-548dfc9767aa', '{"reports":[]}', '2026-05-01 08:00:00.123456',
        '2026-05-01 07:59:59.999999', 0, '2026-05-01 07:00:00'),
    (1, '6D5892D3-1F74-4CCF-91AF-548DFC9767BB', '{"reports":[{}]}', NULL, NULL, 17, NULL),
    (2147483647, '7d5892d3-1f74-4ccf-91af-548dfc9767cc', '{"reports":["ä\u0001\\"]}', '0001-01-01 00:00:00',
        '9999-12-31 23:59:59.999999', 9223372036854775807, NULL);
INSERT INTO public.rule_hit VALUES
    (1, '5d5892d3-1f74-4ccf-91af-548dfc9767aa', 'ccx_rules_ocp.external.rules.a.report', 'A', '{"x": 1.10}',
        '2026-05-01 08:00:00'),
    (1, '5d5892d3-1f74-4ccf-91af-548dfc9767aa', 'ccx_rules_ocp.external.rules.b.report', 'B', '', NULL),
    (1, '6D5892D3-1F74-4CCF-91AF-548DFC9767BB', 'ccx_rules_ocp.external.rules.a.report', 'A', 'null', NULL),
    (2147483647, '7d5892d3-1f74-4ccf-91af-548dfc9767cc', 'ccx_rules_ocp.external.rules.a.report', 'A', '{}',
        '2020-02-29 23:59:59');
INSERT INTO public.recommendation VALUES
    (1, '5d5892d3-1f74-4ccf-91af-548dfc9767aa', 'ccx_rules_ocp.external.rules.a', 'A',
        'ccx_rules_ocp.external.rules.a|A', '2026-05-01 08:00:00', '2026-04-01 00:00:00'),
    (1, '6D5892D3-1F74-4CCF-91AF-548DFC9767BB', 'ccx_rules_ocp.external.rules.a', 'A', '.', NULL, NULL),
    -- of a cluster whose report was deleted by hand
    (3, '00000000-0000-0000-0000-000000000000', 'ccx_rules_ocp.external.rules.a', 'A',
        'ccx_rules_ocp.external.rules.a|A', '2026-05-01 08:00:00', NULL);
INSERT INTO public.report_info VALUES
    (1, '5d5892d3-1f74-4ccf-91af-548dfc9767aa', '4.16.3'),
    (1, '6D5892D3-1F74-4CCF-91AF-548DFC9767BB', '');
INSERT INTO public.consumer_error VALUES
    ('ccx.ocp.results', 0, 2147483647, 'key', '2026-05-01 08:00:00', '2026-05-01 08:00:01', 'not JSON',
        'invalid character ''o'' in literal null (expecting ''u'')'),
    ('ccx.ocp.results', 1, 0, NULL, '0001-01-01 00:00:00', '2026-05-01 08:00:01', NULL, '');
INSERT INTO public.cluster_rule_toggle VALUES
    ('5d5892d3-1f74-4ccf-91af-548dfc9767aa', 'ccx_rules_ocp.external.rules.a.report', 1, '2026-05-01 08:00:00', NULL,
        '2026-05-01 08:00:00', NULL, 'A', '1'),
    ('5d5892d3-1f74-4ccf-91af-548dfc9767aa', 'ccx_rules_ocp.external.rules.b', 0, NULL, NULL,
        '2026-05-01 08:00:00', 1, '', '0');
INSERT INTO public.cluster_user_rule_disable_feedback VALUES
    ('5d5892d3-1f74-4ccf-91af-548dfc9767aa', '42', 'ccx_rules_ocp.external.rules.a.report', 'we know',
        '2026-05-01 08:00:00', '2026-05-01 08:00:00', 'A', '1');
INSERT INTO public.cluster_rule_user_feedback VALUES
    ('6D5892D3-1F74-4CCF-91AF-548DFC9767BB', 'ccx_rules_ocp.external.rules.a', '42', '', -1,
        '2026-05-01 08:00:00', '2026-05-01 08:00:00', 'A', '1');
INSERT INTO public.rule_disable VALUES
    ('4294967295', 'ccx_rules_ocp.external.rules.a', 'A', NULL, '2026-05-01 08:00:00', NULL);
INSERT INTO public.advisor_ratings VALUES
    ('1', 'ccx_rules_ocp.external.rules.a', 'A', NULL, NULL, NULL, '.');

-- keys, constraints, indexes
ALTER TABLE ONLY public.advisor_ratings
    ADD CONSTRAINT advisor_ratings_pkey PRIMARY KEY (org_id, rule_fqdn, error_key);
ALTER TABLE ONLY public.cluster_rule_toggle
    ADD CONSTRAINT cluster_rule_toggle_pkey PRIMARY KEY (cluster_id, rule_id, error_key);
ALTER TABLE ONLY public.cluster_rule_user_feedback
    ADD CONSTRAINT cluster_rule_user_feedback_pkey PRIMARY KEY (cluster_id, rule_id, user_id, error_key);
ALTER TABLE ONLY public.cluster_user_rule_disable_feedback
    ADD CONSTRAINT cluster_user_rule_disable_feedback_pkey PRIMARY KEY (cluster_id, user_id, rule_id, error_key);
ALTER TABLE ONLY public.consumer_error
    ADD CONSTRAINT consumer_error_pkey PRIMARY KEY (topic, partition, topic_offset);
ALTER TABLE ONLY public.recommendation
    ADD CONSTRAINT recommendation_pk PRIMARY KEY (org_id, cluster_id, rule_fqdn, error_key);
ALTER TABLE ONLY public.report ADD CONSTRAINT report_cluster_key UNIQUE (cluster);
ALTER TABLE ONLY public.report ADD CONSTRAINT report_pkey PRIMARY KEY (org_id, cluster);
ALTER TABLE ONLY public.report_info ADD CONSTRAINT report_info_cluster_id_key UNIQUE (cluster_id);
ALTER TABLE ONLY public.report_info ADD CONSTRAINT report_info_pkey PRIMARY KEY (org_id, cluster_id);
ALTER TABLE ONLY public.rule_disable ADD CONSTRAINT rule_disable_pkey PRIMARY KEY (org_id, rule_id, error_key);
ALTER TABLE ONLY public.rule_hit
    ADD CONSTRAINT rule_hit_pkey PRIMARY KEY (cluster_id, org_id, rule_fqdn, error_key);
CREATE INDEX report_kafka_offset_btree_idx ON public.report USING btree (kafka_offset);
ALTER TABLE ONLY public.cluster_rule_user_feedback
    ADD CONSTRAINT cluster_rule_user_feedback_cluster_id_fkey
    FOREIGN KEY (cluster_id) REFERENCES public.report(cluster) ON DELETE CASCADE;

-- what is not ours: more columns and indexes, tables, views, a schema with its own migration_info
ALTER TABLE public.report ADD COLUMN note character varying;
ALTER TABLE public.rule_hit ADD COLUMN weight integer DEFAULT 7 NOT NULL;
UPDATE public.report SET note = 'of others' WHERE org_id = 1;
CREATE INDEX rule_hit_of_others ON public.rule_hit USING btree (org_id, created_at DESC);
CREATE STATISTICS public.of_others ON org_id, cluster FROM public.report;
CREATE TABLE public.delivery (
    org_id integer NOT NULL,
    cluster character varying PRIMARY KEY REFERENCES public.report(cluster)
);
INSERT INTO public.delivery VALUES (1, '5d5892d3-1f74-4ccf-91af-548dfc9767aa');
CREATE VIEW public.delivered AS SELECT cluster, report.reported_at FROM public.delivery JOIN public.report USING (cluster);
CREATE VIEW public.toggles AS SELECT org_id, count(*) FROM public.cluster_rule_toggle GROUP BY org_id;
CREATE SCHEMA dvo;
CREATE TABLE dvo.migration_info (version integer NOT NULL);
INSERT INTO dvo.migration_info VALUES (4);
CREATE TABLE dvo.dvo_report (
    org_id integer NOT NULL,
    cluster_id character varying NOT NULL,
    namespace_id character varying NOT NULL,
    namespace_name character varying,
    report text,
    recommendations integer NOT NULL,
    objects integer NOT NULL,
    reported_at timestamp without time zone,
    last_checked_at timestamp without time zone,
    rule_hits_count jsonb DEFAULT '{}'::jsonb,
    CONSTRAINT dvo_report_pkey PRIMARY KEY (org_id, cluster_id, namespace_id)
);
CREATE INDEX report_org_id_idx ON dvo.dvo_report USING hash (org_id);
INSERT INTO dvo.dvo_report VALUES (1, '5d5892d3-1f74-4ccf-91af-548dfc9767aa', 'n', NULL, NULL, 1, 2);
