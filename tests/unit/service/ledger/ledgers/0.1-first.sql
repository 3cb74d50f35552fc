BEGIN TRANSACTION;
CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	series VARCHAR(16) NOT NULL, 
	item VARCHAR(16) NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	run_at FLOAT NOT NULL, 
	attempts INTEGER NOT NULL, 
	token INTEGER NOT NULL, 
	lease_until FLOAT, 
	note TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	ended_at FLOAT, 
	seconds FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (series, item, model, stage), 
	FOREIGN KEY(series) REFERENCES series ("key") ON DELETE CASCADE
);
INSERT INTO "jobs" VALUES(1,'a1b2c3d4e5f60718','','','receive','done',1795000001.0,0,0,NULL,'3 instances',1795000001.0,1795000002.0,1.0);
INSERT INTO "jobs" VALUES(2,'a1b2c3d4e5f60718','','','assemble','done',1795000002.5,1,1,NULL,'',1795000002.5,1795000003.5,0.1);
INSERT INTO "jobs" VALUES(3,'a1b2c3d4e5f60718','volume','ct-lung','infer','done',1795000004.0,1,1,NULL,'openvino',1795000004.0,1795000005.5,2.0);
INSERT INTO "jobs" VALUES(4,'a1b2c3d4e5f60718','volume','ct-lung','encode','done',1795000006.0,1,1,NULL,'',1795000006.0,1795000007.0,0.3);
INSERT INTO "jobs" VALUES(5,'a1b2c3d4e5f60718','volume','ct-lung','deliver','done',1795000007.5,1,1,NULL,'2 objects sent to orthanc',1795000007.5,1795000008.5,0.2);
INSERT INTO "jobs" VALUES(6,'b1b2c3d4e5f60718','','','receive','done',1795000009.5,0,0,NULL,'5 instances',1795000009.5,1795000010.5,1.0);
INSERT INTO "jobs" VALUES(7,'b1b2c3d4e5f60718','','','assemble','dead',1795000011.0,1,1,NULL,'two slices at one position',1795000011.0,1795000012.0,NULL);
INSERT INTO "jobs" VALUES(8,'c1b2c3d4e5f60718','','','receive','done',1795000013.0,0,0,NULL,'7 instances',1795000013.0,1795000014.0,1.0);
INSERT INTO "jobs" VALUES(9,'c1b2c3d4e5f60718','','','assemble','running',1795000014.5,1,1,1795000135.0,'',1795000014.5,NULL,NULL);
INSERT INTO "jobs" VALUES(10,'d1b2c3d4e5f60718','','','receive','running',1795000016.0,0,0,NULL,'',1795000016.0,NULL,NULL);
CREATE TABLE results (
	sop_instance_uid VARCHAR(128) NOT NULL, 
	series VARCHAR(16) NOT NULL, 
	item VARCHAR(16) NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	sop_class_uid VARCHAR(128) NOT NULL, 
	path TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	archive VARCHAR(64) NOT NULL, 
	PRIMARY KEY (sop_instance_uid), 
	FOREIGN KEY(series) REFERENCES series ("key") ON DELETE CASCADE
);
INSERT INTO "results" VALUES('2.25.1','a1b2c3d4e5f60718','volume','ct-lung','SEG','1.2.840.10008.5.1.4.1.1.66.4','/spool/results/SEG.dcm','sent','orthanc');
INSERT INTO "results" VALUES('2.25.2','a1b2c3d4e5f60718','volume','ct-lung','SR','1.2.840.10008.5.1.4.1.1.88.34','/spool/results/SR.dcm','sent','orthanc');
CREATE TABLE series (
	"key" VARCHAR(16) NOT NULL, 
	study_uid VARCHAR(128) NOT NULL, 
	series_uid VARCHAR(128) NOT NULL, 
	modality VARCHAR(16) NOT NULL, 
	sender VARCHAR(16) NOT NULL, 
	instances INTEGER NOT NULL, 
	opened_at FLOAT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "series" VALUES('a1b2c3d4e5f60718','1.2.3','1.2.3.3','CT','PACS',3,1795000000.5);
INSERT INTO "series" VALUES('b1b2c3d4e5f60718','1.2.3','1.2.3.5','CT','PACS',5,1795000009.0);
INSERT INTO "series" VALUES('c1b2c3d4e5f60718','1.2.3','1.2.3.7','CT','PACS',7,1795000012.5);
INSERT INTO "series" VALUES('d1b2c3d4e5f60718','1.2.4','1.2.4.1','CR','CR1',0,1795000015.5);
CREATE INDEX jobs_to_claim ON jobs (state, stage, run_at);
COMMIT;
