BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'peer');
INSERT INTO "studies" VALUES(2,'two objectives');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MINIMIZE',2,0);
INSERT INTO "study_directions" VALUES(3,'MAXIMIZE',2,1);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1,3.77411282554562077518e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,1,2,0.527411282554562,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,1,3,5.7741128255456208862e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,2,1,0.523078000330224,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,2,2,0.673078000330224,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,2,3,7.23078000330224068825e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,3,1,5.07486356027521789968e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,4,1,5.12490032269506290418e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,4,2,6.62490032269506312623e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,6,1,6.32040214888096585355e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,6,2,NULL,'NAN');
INSERT INTO "trial_intermediate_values" VALUES(12,7,1,4.9370642907397682686e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(13,8,1,5.04660814593212325718e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(14,9,1,4.39013677515849576327e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(15,10,1,4.17875447518980369654e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(16,11,1,0.567438379233042,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(17,11,2,7.17438379233041878535e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(18,11,3,7.67438379233041922944e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(19,12,1,5.73307327182587478375e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(20,12,2,7.2330732718258750058e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(21,12,3,7.73307327182587544989e-01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'learning_rate',2.01945024481022689924e-05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(2,1,'dropout',0.5,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(3,1,'head',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(4,1,'hidden_units',964.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 64, "high": 1024}}');
INSERT INTO "trial_params" VALUES(5,1,'batch',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(6,1,'blocks',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(7,2,'learning_rate',9.98918377985213773104e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(8,2,'dropout',0.4,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(9,2,'head',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(10,2,'batch',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(11,2,'blocks',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(12,3,'learning_rate',6.43421912554506710002e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(13,3,'dropout',0.6,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(14,3,'head',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(15,3,'hidden_units',892.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 64, "high": 1024}}');
INSERT INTO "trial_params" VALUES(16,3,'batch',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(17,3,'blocks',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(18,4,'learning_rate',1.24065297901246578832e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(19,4,'dropout',0.5,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(20,4,'head',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(21,4,'batch',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(22,4,'blocks',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(23,5,'learning_rate',2.90777998673904137117e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(24,5,'dropout',0.5,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(25,5,'head',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(26,5,'batch',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(27,5,'blocks',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(28,6,'learning_rate',4.26184696665042259122e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(29,6,'dropout',0.2,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(30,6,'head',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(31,6,'hidden_units',200.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 64, "high": 1024}}');
INSERT INTO "trial_params" VALUES(32,6,'batch',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(33,6,'blocks',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(34,7,'learning_rate',5.07942194255228598315e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(35,7,'dropout',0.4,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(36,7,'head',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(37,7,'batch',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(38,7,'blocks',5.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(39,8,'learning_rate',6.09034442843548601276e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(40,8,'dropout',0.6,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(41,8,'head',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(42,8,'batch',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(43,8,'blocks',7.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(44,9,'learning_rate',6.02827276905272407825e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(45,9,'dropout',0.5,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(46,9,'head',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(47,9,'hidden_units',91.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 64, "high": 1024}}');
INSERT INTO "trial_params" VALUES(48,9,'batch',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(49,9,'blocks',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(50,10,'learning_rate',3.52780421827881700324e-05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(51,10,'dropout',0.2,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(52,10,'head',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(53,10,'batch',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(54,10,'blocks',7.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(55,11,'learning_rate',1.53307288731642354234e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(56,11,'dropout',3.00000000000000044408e-01,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(57,11,'head',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(58,11,'hidden_units',749.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 64, "high": 1024}}');
INSERT INTO "trial_params" VALUES(59,11,'batch',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(60,11,'blocks',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(61,12,'learning_rate',3.18190273179170257655e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(62,12,'dropout',0.1,'{"name": "FloatDistribution", "attributes": {"step": 0.1, "low": 0.0, "high": 0.6, "log": false}}');
INSERT INTO "trial_params" VALUES(63,12,'head',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["linear", "hidden"]}}');
INSERT INTO "trial_params" VALUES(64,12,'hidden_units',467.0,'{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 64, "high": 1024}}');
INSERT INTO "trial_params" VALUES(65,12,'batch',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(66,12,'blocks',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 1, "high": 7}}');
INSERT INTO "trial_params" VALUES(67,13,'batch',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [16, 32, 64]}}');
INSERT INTO "trial_params" VALUES(68,15,'x',0.25,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0, "high": 1.0, "log": false}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'completed_rung_0','0.3774112825545621');
INSERT INTO "trial_system_attributes" VALUES(2,1,'completed_rung_1','0.527411282554562');
INSERT INTO "trial_system_attributes" VALUES(3,2,'completed_rung_0','0.523078000330224');
INSERT INTO "trial_system_attributes" VALUES(4,2,'completed_rung_1','0.673078000330224');
INSERT INTO "trial_system_attributes" VALUES(5,3,'completed_rung_0','0.5074863560275218');
INSERT INTO "trial_system_attributes" VALUES(6,4,'completed_rung_0','0.5124900322695063');
INSERT INTO "trial_system_attributes" VALUES(7,4,'completed_rung_1','0.6624900322695063');
INSERT INTO "trial_system_attributes" VALUES(8,6,'completed_rung_0','0.6320402148880966');
INSERT INTO "trial_system_attributes" VALUES(9,7,'completed_rung_0','0.4937064290739768');
INSERT INTO "trial_system_attributes" VALUES(10,8,'completed_rung_0','0.5046608145932123');
INSERT INTO "trial_system_attributes" VALUES(11,9,'completed_rung_0','0.4390136775158496');
INSERT INTO "trial_system_attributes" VALUES(12,10,'completed_rung_0','0.41787544751898037');
INSERT INTO "trial_system_attributes" VALUES(13,11,'completed_rung_0','0.567438379233042');
INSERT INTO "trial_system_attributes" VALUES(14,11,'completed_rung_1','0.7174383792330419');
INSERT INTO "trial_system_attributes" VALUES(15,12,'completed_rung_0','0.5733073271825875');
INSERT INTO "trial_system_attributes" VALUES(16,12,'completed_rung_1','0.7233073271825875');
INSERT INTO "trial_system_attributes" VALUES(17,13,'fixed_params','{"learning_rate": 0.001}');
INSERT INTO "trial_system_attributes" VALUES(18,14,'fixed_params','{"learning_rate": 0.01}');
INSERT INTO "trial_system_attributes" VALUES(19,15,'fixed_params','{"x": 0.25}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(2,2,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(3,3,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(4,4,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(5,5,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(6,6,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(7,7,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(8,8,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(9,9,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(10,10,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(11,11,'note','"NaN, \"quoted\", \u00e9"');
INSERT INTO "trial_user_attributes" VALUES(12,12,'note','"NaN, \"quoted\", \u00e9"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,5.7741128255456208862e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,7.23078000330224068825e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,5.07486356027521789968e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,6.62490032269506312623e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,7,0,4.9370642907397682686e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,8,0,5.04660814593212325718e-01,'FINITE');
INSERT INTO "trial_values" VALUES(7,9,0,4.39013677515849576327e-01,'FINITE');
INSERT INTO "trial_values" VALUES(8,10,0,4.17875447518980369654e-01,'FINITE');
INSERT INTO "trial_values" VALUES(9,11,0,7.67438379233041922944e-01,'FINITE');
INSERT INTO "trial_values" VALUES(10,12,0,NULL,'INF_POS');
INSERT INTO "trial_values" VALUES(11,15,0,0.25,'FINITE');
INSERT INTO "trial_values" VALUES(12,15,1,0.5,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-26 02:40:24.866929','2026-11-26 02:40:25.192768');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-26 02:40:25.228638','2026-11-26 02:40:25.639926');
INSERT INTO "trials" VALUES(3,2,1,'PRUNED','2026-11-26 02:40:25.680694','2026-11-26 02:40:25.833842');
INSERT INTO "trials" VALUES(4,3,1,'PRUNED','2026-11-26 02:40:25.848169','2026-11-26 02:40:26.166014');
INSERT INTO "trials" VALUES(5,4,1,'FAIL','2026-11-26 02:40:26.208651','2026-11-26 02:40:26.375539');
INSERT INTO "trials" VALUES(6,5,1,'PRUNED','2026-11-26 02:40:26.413845','2026-11-26 02:40:26.661764');
INSERT INTO "trials" VALUES(7,6,1,'PRUNED','2026-11-26 02:40:26.675921','2026-11-26 02:40:26.756147');
INSERT INTO "trials" VALUES(8,7,1,'PRUNED','2026-11-26 02:40:26.791935','2026-11-26 02:40:27.045533');
INSERT INTO "trials" VALUES(9,8,1,'PRUNED','2026-11-26 02:40:27.077989','2026-11-26 02:40:27.267679');
INSERT INTO "trials" VALUES(10,9,1,'PRUNED','2026-11-26 02:40:27.304305','2026-11-26 02:40:27.540817');
INSERT INTO "trials" VALUES(11,10,1,'COMPLETE','2026-11-26 02:40:27.577582','2026-11-26 02:40:27.943353');
INSERT INTO "trials" VALUES(12,11,1,'COMPLETE','2026-11-26 02:40:27.981242','2026-11-26 02:40:28.362047');
INSERT INTO "trials" VALUES(13,12,1,'RUNNING','2026-11-26 02:40:28.486817',NULL);
INSERT INTO "trials" VALUES(14,13,1,'WAITING',NULL,NULL);
INSERT INTO "trials" VALUES(15,0,2,'COMPLETE','2026-11-26 02:40:28.633000','2026-11-26 02:40:28.710445');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
COMMIT;
