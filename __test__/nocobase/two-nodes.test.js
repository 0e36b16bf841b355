'use strict';

const { RedisServer } = require('../servers/redis');
const { HOWS, Node, onRedis, until } = require('./nodes');

/** Runs in a node: a workflow of `wait` and `step` nodes, which somebody triggers. */
const makeWorkflow = async ({ app }, steps) => {
  const workflow = await app.db.getRepository('workflows').create({ values: { title: 'probe', type: 'probe', enabled: true, config: {} } });
  let upstream;
  for (const [type, name] of steps) {
    const node = await workflow.createNode({ type, title: name, config: { name }, upstreamId: upstream?.id ?? null });
    await upstream?.setDownstream(node);
    upstream = node;
  }
  return workflow.id;
};

const trigger = async ({ app }, id) => {
  const workflow = await app.db.getRepository('workflows').findOne({ filterByTk: id });
  await app.pm.get('workflow').trigger(workflow, { from: 'a test' });
};

const executions = async ({ app }, workflowId) => {
  const found = await app.db.getRepository('executions').find({ filter: { workflowId }, appends: ['jobs'] });
  return found.map(({ status, jobs }) => ({ status, results: jobs.map(({ result }) => result).filter((result) => result !== null) }));
};

const RESOLVED = 1;

describe.each(HOWS)('two NocoBase nodes with mortise by %s', (how) => {
  let redis;
  beforeEach(async () => { redis = await RedisServer.start(); });
  afterEach(() => redis.stop());

  const startBoth = async (environments = [{}, {}]) => {
    const a = await Node.start({ how, environment: { ...onRedis(redis.url), ...environments[0] } });
    const b = await Node.start({ how, folder: a.folder, environment: { ...onRedis(redis.url), ...environments[1] } });
    await a.signIn();
    return [a, b];
  };

  test('have different worker ids, hear each other, share locks, counters and sessions', async () => {
    const [a, b] = await startBoth();
    const id = ({ app }) => app.instanceId;
    expect(await a.call(id)).not.toBe(await b.call(id));
    // A token of one node is good on the other.
    b.token = a.token;
    expect((await b.request('GET', 'auth:check')).body.data.username).toBe('root');
    await a.call(({ app }) => app.pubSubManager.publish('probe', 'hello', { skipSelf: true }));
    await until(() => b.call(({ app, Probe }) => app.pm.get(Probe).heard.includes('hello')));
    expect(await a.call(({ app, Probe }) => app.pm.get(Probe).heard)).toEqual([]);
    await a.call(({ app, Probe }) => app.pm.get(Probe).sendSyncMessage({ changed: 1 }));
    await until(() => b.call(({ app, Probe }) => app.pm.get(Probe).synced.length > 0));
    expect(await b.call(({ app, Probe }) => app.pm.get(Probe).synced)).toEqual([{ changed: 1 }]);
    await a.call(({ app }) => app.lockManager.acquire('shared', 60_000).then(() => undefined));
    await expect(b.call(({ app }) => app.lockManager.tryAcquire('shared'))).rejects.toMatchObject({ className: 'LockAcquireError' });
    await a.call(({ app, Probe }) => app.pm.get(Probe).counter.incr('n'));
    expect(await b.call(({ app, Probe }) => app.pm.get(Probe).counter.incr('n'))).toBe(2);
  });

  test('a collection that is made on one is there on the other', async () => {
    const [a, b] = await startBoth();
    b.token = a.token;
    const fields = [{ name: 'title', type: 'string', interface: 'input' }];
    const made = await a.request('POST', 'collections:create', { name: 'orders', autoGenId: true, fields });
    expect(made.status).toBe(200);
    await until(() => b.call(({ app }) => app.db.hasCollection('orders')));
    expect((await a.request('POST', 'orders:create', { title: 'first' })).status).toBe(200);
    expect((await b.request('GET', 'orders:list')).body.data.map(({ title }) => title)).toEqual(['first']);
  });

  test('a workflow that is triggered on one node is executed by the node that serves workflows', async () => {
    const [a, b] = await startBoth([{ WORKER_MODE: '-' }, {}]);
    const id = await a.call(makeWorkflow, [['step', 'only']]);
    await a.call(trigger, id);
    await until(async () => (await a.call(executions, id))[0]?.status === RESOLVED, 30_000);
    expect(await a.call(executions, id)).toEqual([{ status: RESOLVED, results: [b.child.pid] }]);
  });

  test('a task that runs on one node is cancelled from the other', async () => {
    const [a, b] = await startBoth([{ WORKER_MODE: '-' }, {}]);
    const id = await a.call(async ({ app }) => {
      const user = await app.db.getRepository('users').findOne();
      const task = await app.container.get('AsyncTaskManager').createTask({ type: 'long', cancelable: true }, { useQueue: true, context: { state: { currentUser: user } } });
      return task.record.id;
    });
    expect((await b.event('task')).task).toBe(id);
    expect(await a.request('POST', `asyncTasks:stop/${id}`)).toMatchObject({ status: 202 });
    expect((await b.event('aborted')).task).toBe(id);
    await until(async () => (await a.request('GET', `asyncTasks:get/${id}`)).body.data?.status === -2);
  });

  // NocoBase starts an execution once, and resumes it as often as it is asked to. What it holds for a minute is
  // its own lock of the execution, which the killed node cannot give back.
  test('a node that is killed in the middle of a workflow: the other completes it', async () => {
    const a = await Node.start({ how, environment: { ...onRedis(redis.url), PROBE_HOLD: 'middle' } });
    const id = await a.call(makeWorkflow, [['wait', 'start'], ['step', 'middle'], ['step', 'last']]);
    await a.call(trigger, id);
    await until(async () => (await a.call(({ app }) => app.db.getRepository('jobs').count())) === 1);
    await a.call(async ({ app }) => {
      const job = await app.db.getRepository('jobs').findOne();
      job.set('status', 1);
      await app.pm.get('workflow').resume(job);
    });
    await a.event('step');
    const b = await Node.start({ how, folder: a.folder, environment: onRedis(redis.url) });
    expect(await a.kill()).toEqual({ code: null, signal: 'SIGKILL' });
    await until(async () => (await b.call(executions, id))[0].status === RESOLVED, 120_000);
    const [{ results }] = await b.call(executions, id);
    expect(results).toEqual([b.child.pid, b.child.pid]);
  });
});
