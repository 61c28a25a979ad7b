"""What the user holds: an executor that takes functions and inputs, and gives futures."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex

from lithops_mini import config as configuration
from lithops_mini import costs, logs, records, registry, tracing, wire
from lithops_mini.compute.base import ComputeBackend
from lithops_mini.compute.inbox import Inbox, Looks
from lithops_mini.costs import Bill, Prices
from lithops_mini.errors import InputError, LithopsMiniError, WaitTimeout
from lithops_mini.job import manifest, memory, plan
from lithops_mini.job.dispatch import Dispatcher
from lithops_mini.job.future import ResponseFuture
from lithops_mini.job.history import stage_name
from lithops_mini.job.job import Inputs, Job
from lithops_mini.job.keys import job_key
from lithops_mini.job.options import CallOptions, check_amount, check_names
from lithops_mini.job.options import read as read_options
from lithops_mini.job.plan import Cut, ExtraArgs, PlannedCall
from lithops_mini.job.stage import Code, MapResults, Stage, name_of
from lithops_mini.records import NO_REQUESTS, Attempt, CallStats, Platform, Requests
from lithops_mini.sizes import format_size
from lithops_mini.storage.api import Storage
from lithops_mini.storage.base import StorageBackend
from lithops_mini.waiting import ALL_COMPLETED, FutureList, Futures, get_result, listed, wait

if TYPE_CHECKING:
    from pandas import DataFrame

    from lithops_mini.job.estimate import Estimate, Sample
    from lithops_mini.plots.files import Pictures

logger = logging.getLogger("lithops_mini")

# Arguments and results up to this size travel in messages, larger ones through storage; in bytes. A backend with small
# messages has a smaller limit.
_INLINE = 256 << 10
# The same for the function with its modules, which goes with every message.
_INLINE_CODE = 32 << 10

# Submissions after which those that have been read are forgotten by a get_result() without futures.
_UNREAD = 1000

# Those nobody has shut down, also when nobody holds them any more: their calls go on, and their workers must end.
_open_executors: set[FunctionExecutor] = set()


class FunctionExecutor:
    """Runs functions on a compute backend. Use it as a context manager, or call ``shutdown`` when done.

    May be used from several threads. Everything its jobs store lies under one prefix of the job bucket.
    """

    def __init__(
        self,
        backend: str | None = None,
        storage: str | None = None,
        profile: str | None = None,
        config: Mapping[str, Any] | None = None,
        config_file: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        """``docs/configuration.md`` lists the settings and where they come from. Raises ``ConfigError``, or what the
        backends raise when they cannot be reached.
        """
        self.config = configuration.load(
            backend=backend, storage=storage, profile=profile, config=config, config_file=config_file, **settings
        )
        job = self.config.job
        logs.setup(job.log_level)
        self.executor_id = os.urandom(6).hex()
        self._process = os.getpid()
        self._closed = False
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._numbers = itertools.count()  # of jobs
        self._unread: list[FutureList] = []
        self._most_unread = _UNREAD
        self._stored_code: set[str] = set()
        if job.prices:
            costs.read_prices(job.prices)  # whether there are such
        self._compute: ComputeBackend = registry.find("compute", self.config.backend)(self.config.compute_options)
        try:
            self._storage: StorageBackend = registry.find("storage", self.config.storage)(self.config.storage_options)
            self._storage.create_bucket(job.storage_bucket)
            needs = self._storage.worker_needs(job.storage_bucket)
            self._inbox: Inbox | None = None
            if needs.remote:
                self._inbox = Inbox(self.config.storage, self._storage, job.storage_bucket, self.executor_id)
                self._compute.use_inbox(self._inbox)
            self._compute.deploy(needs)
            self._stores = self._compute.reaches_files or needs.remote
        except BaseException:
            self._compute.close()
            raise
        prefix = records.cloudobjects_prefix(self.executor_id)
        self.storage = Storage(self._storage, job.storage_bucket, cloudobject_prefix=prefix)
        self._storage_options = self._storage.worker_options()
        self._home = (
            self.config.storage,
            json.dumps(self._storage_options, sort_keys=True),
            job.storage_bucket,
        )
        readable = (
            {"url"} | ({"object"} if self._stores else set()) | ({"path"} if self._compute.shares_files else set())
        )
        # A function that makes an executor of its own gets this one's settings.
        profile = json.dumps(self.config.as_profile())
        self._environment = {"LITHOPS_MINI_CONFIG": profile} if self._compute.composes else {}
        self._surroundings = plan.Surroundings(self._storage, self.config.storage, readable)
        self._recorder = manifest.Recorder(self._storage, job.storage_bucket)
        self._tracer = tracing.open_tracer(job.otlp_endpoint)
        self._dispatcher = Dispatcher(self._compute, self._storage, job.storage_bucket, self._recorder)
        _open_executors.add(self)

    def __repr__(self) -> str:
        return f"<FunctionExecutor {self.executor_id}: {self.config.backend} + {self.config.storage}, {self._state}>"

    @property
    def _state(self) -> str:
        return "closed" if self._closed else "open"

    # -- submitting

    def submit(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ResponseFuture[Any]:
        """Run ``func(*args, **kwargs)``, like ``concurrent.futures.Executor.submit``."""
        return self._call(func, (args, kwargs), self._options())

    def call_async(
        self,
        func: Callable[..., Any],
        data: Any,
        extra_env: Mapping[str, str] | None = None,
        runtime_memory: int | Literal["auto"] | None = None,
        timeout: float | None = None,
        include_modules: Iterable[str] = (),
        exclude_modules: Iterable[str] = (),
        *,
        retries: int | None = None,
        retry_exceptions: bool | type[BaseException] | tuple[type[BaseException], ...] | None = None,
        budget: float | None = None,
    ) -> ResponseFuture[Any]:
        """Run one call. ``data`` is to ``func`` what an item of ``iterdata`` is to the function of ``map``, which also
        explains the other arguments.
        """
        options = self._options(
            extra_env,
            runtime_memory,
            timeout,
            include_modules,
            exclude_modules,
            retries,
            retry_exceptions,
            budget=budget,
        )
        return self._call(func, plan.arguments(data, None), options)

    def _call(self, func: Callable[..., Any], arguments: plan.Arguments, options: CallOptions) -> ResponseFuture[Any]:
        calls, filled = plan.plan(func, [arguments], Cut(), self._surroundings)
        if len(calls) != 1:
            raise InputError(f"the input is {len(calls)} pieces of data, and this makes one call: use map")
        _, futures = self._start("call", func, calls, filled, options)
        return self._remember(FutureList(futures, bare=True))[0]

    def map(
        self,
        map_function: Callable[..., Any],
        iterdata: Iterable[Any],
        chunksize: int | None = None,
        extra_args: ExtraArgs | None = None,
        extra_env: Mapping[str, str] | None = None,
        runtime_memory: int | Literal["auto"] | None = None,
        obj_chunk_size: SupportsIndex | str | None = None,
        obj_chunk_number: int | None = None,
        obj_newline: str | bytes | None = "\n",
        timeout: float | None = None,
        include_modules: Iterable[str] = (),
        exclude_modules: Iterable[str] = (),
        *,
        obj_pack_size: SupportsIndex | str | None = None,
        obj_decompress: bool = True,
        retries: int | None = None,
        retry_exceptions: bool | type[BaseException] | tuple[type[BaseException], ...] | None = None,
        budget: float | None = None,
    ) -> FutureList:
        """Run ``map_function`` once for each item of ``iterdata``; return the futures in the same order.

        An item that is a tuple is positional arguments, a dict keyword arguments, anything else one argument; futures
        among them are replaced by their values in the worker. If the function has a parameter ``obj`` (or ``url``), its
        argument names data, and there is a call for each partition: see ``docs/data-processing.md`` for that and the
        ``obj_`` arguments. Parameters ``id``, ``storage`` and ``ibm_cos`` are filled in when they are given no value.

        ``chunksize``: calls in one message; default: many when they are short. ``extra_args``: a tuple of positional or
        a dict of keyword arguments for every call. ``extra_env``: environment variables. ``runtime_memory``: MiB a
        worker may hold; ``"auto"``: by the size of the inputs, and twice as much for a call that runs out of it.
        ``timeout``: seconds a call may run. ``include_modules``, ``exclude_modules``: local modules that travel with
        the function, or do not, against what is found. ``retries``: more attempts for a call whose worker was lost;
        ``retry_exceptions``: also for these exceptions of the function, or True for all. ``budget``: dollars that the
        job may cost, with what its messages under way may still cost; the calls for which nothing is left fail with
        ``BudgetExceeded``, and the others keep their results. ``docs/costs.md`` says what is promised. Those not given
        are the configuration's.

        Raises ``InputError``, ``SerializationError`` or ``StorageError`` before anything runs.
        """
        options = self._options(
            extra_env,
            runtime_memory,
            timeout,
            include_modules,
            exclude_modules,
            retries,
            retry_exceptions,
            chunksize,
            budget=budget,
        )
        cut = Cut(obj_chunk_size, obj_chunk_number, obj_newline, obj_decompress, obj_pack_size)
        inputs = plan.items(map_function, iterdata, extra_args)
        calls, filled = plan.plan(map_function, inputs, cut, self._surroundings)
        _, futures = self._start("map", map_function, calls, filled, options)
        return self._remember(FutureList(futures))

    def map_reduce(
        self,
        map_function: Callable[..., Any],
        iterdata: Iterable[Any],
        reduce_function: Callable[..., Any],
        chunksize: int | None = None,
        extra_args: ExtraArgs | None = None,
        extra_args_reduce: ExtraArgs | None = None,
        extra_env: Mapping[str, str] | None = None,
        map_runtime_memory: int | Literal["auto"] | None = None,
        reduce_runtime_memory: int | Literal["auto"] | None = None,
        obj_chunk_size: SupportsIndex | str | None = None,
        obj_chunk_number: int | None = None,
        obj_newline: str | bytes | None = "\n",
        obj_reduce_by_key: bool = False,
        spawn_reducer: float = 100,
        timeout: float | None = None,
        include_modules: Iterable[str] = (),
        exclude_modules: Iterable[str] = (),
        *,
        runtime_memory: int | Literal["auto"] | None = None,
        obj_pack_size: SupportsIndex | str | None = None,
        obj_decompress: bool = True,
        retries: int | None = None,
        retry_exceptions: bool | type[BaseException] | tuple[type[BaseException], ...] | None = None,
        budget: float | None = None,
    ) -> FutureList:
        """``map``, and then ``reduce_function`` over the results; return the futures of the reducers.

        The first argument of ``reduce_function`` is the results of the map in order, as a sequence that loads each when
        it is read; ``extra_args_reduce`` follow. There is one reducer, or with ``obj_reduce_by_key`` one for each
        object. ``spawn_reducer``: percentage of the map that must have ended before a reducer starts; below 100 it then
        waits in its worker for the rest. The map's futures are in ``map_futures`` of what is returned.
        ``runtime_memory`` is for both, unless ``map_runtime_memory`` or ``reduce_runtime_memory`` is given; the
        ``budget`` is for both together. The other arguments are those of ``map``. A failed map call fails its reducer
        with the same exception.
        """
        if not isinstance(spawn_reducer, int | float) or not 0 <= spawn_reducer <= 100:
            raise InputError(f"spawn_reducer is {spawn_reducer!r}: give a percentage from 0 to 100")
        if not self._stores:
            spawn_reducer = 100  # to wait for results, a reducer would have to see them
        plan.check_extra("extra_args_reduce", extra_args_reduce)
        reducer_inputs = [plan.arguments((MapResults([]),), extra_args_reduce)]
        planned, _ = plan.plan(reduce_function, reducer_inputs, Cut(), self._surroundings)  # whether it takes them
        Stage().function(reduce_function)  # whether it can travel
        Stage().arguments(planned[0].args, planned[0].kwargs, "the reducer's input")
        cut = Cut(obj_chunk_size, obj_chunk_number, obj_newline, obj_decompress, obj_pack_size)
        common = (timeout, include_modules, exclude_modules, retries, retry_exceptions)
        map_memory = runtime_memory if map_runtime_memory is None else map_runtime_memory
        reduce_memory = runtime_memory if reduce_runtime_memory is None else reduce_runtime_memory
        map_options = self._options(extra_env, map_memory, *common, chunksize, budget=budget)
        reduce_options = replace(self._options(extra_env, reduce_memory, *common), budget=map_options.budget)
        inputs = plan.items(map_function, iterdata, extra_args)
        calls, filled = plan.plan(map_function, inputs, cut, self._surroundings)
        if obj_reduce_by_key and filled[-1:] not in (("obj",), ("url",)):
            raise InputError("obj_reduce_by_key is for a map over data: give map_function a parameter named obj")
        mapped, futures = self._start("map", map_function, calls, filled, map_options, followed=spawn_reducer < 100)
        groups = [futures]
        if obj_reduce_by_key:
            pairs = zip(futures, calls, strict=True)
            groups = [
                [future for future, _ in group] for _, group in itertools.groupby(pairs, lambda pair: pair[1].source)
            ]
        reducer_inputs = [plan.arguments((MapResults(group),), extra_args_reduce) for group in groups]
        planned, filled = plan.plan(reduce_function, reducer_inputs, Cut(), self._surroundings)
        try:
            _, reducers = self._start(
                "reduce", reduce_function, planned, filled, reduce_options, upstream=[mapped], spawn=spawn_reducer / 100
            )
        except BaseException:
            mapped.cancel()
            raise
        return self._remember(FutureList(reducers, bare=not obj_reduce_by_key, map_futures=futures))

    def estimate_cost(
        self,
        map_function: Callable[..., Any],
        iterdata: Iterable[Any],
        *,
        sample: int = 5,
        durations: float | Sequence[float] | None = None,
        **options: Any,
    ) -> Estimate:
        """Tell what a ``map`` with these arguments would cost; its ``options`` are those of ``map``.

        ``sample`` calls, evenly spaced over all, are run for real and paid for, each in a message of its own, in two
        rounds; what they return is dropped. With ``durations``, seconds that a call takes or a list of some, nothing is
        run.
        ``Estimate`` says how the range is computed. A call of the sample that fails raises its exception here.
        """
        from lithops_mini.job import estimate

        if isinstance(sample, bool) or not isinstance(sample, int) or sample < 1:
            raise InputError(f"sample is {sample!r}: give a whole number of calls, at least 1")
        check_names("estimate_cost", options, self.map)
        cut = Cut(**{f.name: options.pop(f.name) for f in fields(Cut) if f.name in options})
        inputs = plan.items(map_function, iterdata, options.pop("extra_args", None))
        chosen = self._options(**options)
        calls, filled = plan.plan(map_function, inputs, cut, self._surroundings)
        if not calls:
            known = estimate.Sample(())
        elif durations is None:
            few = [calls[(2 * n + 1) * len(calls) // (2 * sample)] for n in range(sample)]
            known = self._run_sample(map_function, few if sample < len(calls) else calls, filled, chosen)
        else:
            known = estimate.Sample.said(durations)
        return estimate.estimate(
            known,
            len(calls),
            name=name_of(map_function),
            lanes=self._compute.concurrency,
            memory=memory.fitting(calls) if chosen.runtime_memory == "auto" else chosen.runtime_memory,
            chunksize=chosen.policy.chunksize,
            platform=self._platform,
            prices=self._prices,
            backend=self.config.backend,
        )

    def _run_sample(
        self, function: Callable[..., Any], calls: Sequence[PlannedCall], filled: Sequence[str], options: CallOptions
    ) -> Sample:
        """Run a half, with workers that may start cold, and then the others, for which these are there."""
        from lithops_mini.job.estimate import Round, Sample

        one_by_one = replace(options, policy=replace(options.policy, chunksize=1))
        half = -(-len(calls) // 2)
        rounds = []
        for some in filter(None, (calls[:half], calls[half:])):
            before, began, looks = self._storage.requests(), time.monotonic(), self._looks()
            job, futures = self._start("map", function, some, filled, one_by_one)
            get_result(futures, show_progress=False)
            job.over.wait()
            took = time.monotonic() - began
            self._recorder.flush()
            after = self._storage.requests()
            sent = None if before is None or after is None else after.since(before)
            stage = costs.Stage(job.name, job.stats(), job.usage)
            rounds.append(Round(stage, list(job.invocations), took, sent, self._looks().since(looks)))
        return Sample.ran(rounds)

    def _looks(self) -> Looks:
        return Looks() if self._inbox is None else self._inbox.looks

    # -- waiting and reading

    def wait(
        self,
        fs: Futures | None = None,
        return_when: str | float = ALL_COMPLETED,
        timeout: float | None = None,
        *,
        show_progress: bool | None = None,
    ) -> tuple[list[ResponseFuture[Any]], list[ResponseFuture[Any]]]:
        """``lithops_mini.wait``; without ``fs``, for everything submitted since the last ``get_result``."""
        if fs is None:
            with self._lock:
                fs = [future for futures in self._unread for future in futures]
        return wait(fs, return_when, timeout, show_progress=self._shows(show_progress))

    def get_result(
        self,
        fs: Futures | None = None,
        throw_except: bool = True,
        timeout: float | None = None,
        *,
        show_progress: bool | None = None,
    ) -> Any:
        """``lithops_mini.get_result``; without ``fs``, of everything submitted since the last one.

        That is the bare value after one ``call_async`` or ``submit``, a list after ``map``, the reducer's value (a list
        with ``obj_reduce_by_key``) after ``map_reduce``, and one list of it all after several of these.
        """
        taken: list[FutureList] = []
        if fs is None:
            with self._lock:
                taken, self._unread = self._unread, []
            fs = taken[0] if len(taken) == 1 else [future for futures in taken for future in futures]
        else:
            fs = fs if isinstance(fs, FutureList) else FutureList(listed(fs), bare=isinstance(fs, ResponseFuture))
            given = set(fs)
            with self._lock:
                taken = [futures for futures in self._unread if given.issuperset(futures)]
                self._unread = [futures for futures in self._unread if not given.issuperset(futures)]
        try:
            return get_result(fs, throw_except, timeout, show_progress=self._shows(show_progress))
        except WaitTimeout:
            with self._lock:
                self._unread = taken + self._unread
            raise

    def _shows(self, show_progress: bool | None) -> bool | None:
        return self.config.job.progress if show_progress is None else show_progress

    # -- looking at what it did

    def stats(self) -> list[tuple[str, list[CallStats]]]:
        """The stats of the settled calls of each job, in the order of submission, under the job's name."""
        with self._lock:
            jobs = list(self._jobs)
        return _stages(jobs)

    def job_summary(self) -> str:
        """What the jobs so far did, as text: calls, failures, times, memory, bytes, workers, storage requests, and what
        ``bill`` says.
        """
        from lithops_mini import report

        with self._lock:
            jobs = list(self._jobs)
        summary = report.summary(
            _stages(jobs),
            backend=self.config.backend,
            storage=self.config.storage,
            executor_id=self.executor_id,
            client_requests=self._storage.requests(),
            attempts=_attempts(jobs),
        )
        bill = self.bill()
        return f"{summary}\n\n{bill}" if bill.stages else summary

    def bill(self) -> Bill:
        """What the jobs have cost so far, with what runs now only once it has ended.

        Where nobody charges for what runs the calls, it is what the same would have cost on AWS Lambda.
        """
        with self._lock:
            jobs = list(self._jobs)
        return self._bill(jobs, self._storage.requests())

    def _bill(self, jobs: Iterable[Job], client_requests: Requests | None) -> Bill:
        return costs.bill(
            [costs.Stage(_title(job), job.stats(), job.usage) for job in jobs],
            self._platform,
            self._prices,
            backend=self.config.backend,
            client_requests=client_requests,
        )

    @property
    def _prices(self) -> Prices:
        return costs.read_prices(self.config.job.prices)

    @property
    def _platform(self) -> Platform:
        return replace(self._compute.platform, storage=self.config.storage)

    def plot(self, dst: str | Path | None = None, fs: Futures | None = None) -> Pictures:
        """Draw the jobs so far; return the paths of the pictures, with the pictures. See ``plots.files.plot``.

        With ``fs``, a future or several, only their whole jobs, and before reducers the map. ``InputError`` for futures
        of another executor, or none.
        """
        from lithops_mini.plots import files

        jobs, name = self._jobs_of(fs)
        return files.plot(_stages(jobs), dst, name=name, attempts=_attempts(jobs))

    def report(self, dst: str | Path | None = None, fs: Futures | None = None) -> str:
        """Write what the jobs so far did as one HTML file, with pictures; return its path. See ``html.page.write``.

        ``fs`` as for ``plot``.
        """
        from lithops_mini.html import page

        jobs, name = self._jobs_of(fs)
        requests = self._storage.requests()
        if fs is not None and requests is not None:
            requests = NO_REQUESTS  # the client's are counted for all jobs together
        bill = self._bill(jobs, requests)
        told = page.Report(
            name,
            {"backend": self.config.backend, "storage": self.config.storage, "bucket": self.config.job.storage_bucket},
            [page.Stage(_title(job), job.stats(), job.failures(), list(job.attempts)) for job in jobs],
            requests,
            [page.bill_section(bill)] if bill.stages else [],
        )
        return page.write(told, dst)

    def export(self, dst: str | Path, fs: Futures | None = None) -> str:
        """Write ``stats`` as a table, in the format that the name ends in, ``.csv`` or ``.jsonl``; return the path.

        ``fs`` as for ``plot``.
        """
        from lithops_mini import export

        jobs, _ = self._jobs_of(fs)
        return export.write_file(_stages(jobs), dst)

    def _jobs_of(self, fs: Futures | None) -> tuple[list[Job], str]:
        """The jobs of futures, after those they wait for, with a name for them: all jobs without any."""
        with self._lock:
            jobs = {job.id: job for job in self._jobs}
        if fs is None:
            return list(jobs.values()), self.executor_id
        wanted: set[Job] = set()
        for future in (futures := listed(fs)):
            if future.job_id not in jobs:
                raise InputError(f"{future!r} is not of executor {self.executor_id}: ask the one that made it")
            wanted |= {jobs[future.job_id], *jobs[future.job_id].upstream}
        if not futures:
            raise InputError("fs is empty: give futures of this executor, or leave it out for all jobs")
        return [job for job in jobs.values() if job in wanted], futures[-1].job_id

    def dataframe(self) -> DataFrame:
        """``stats`` as a pandas ``DataFrame``, with a row for each call. ``ConfigError`` if there is no pandas."""
        from lithops_mini import export

        return export.dataframe(self.stats())

    def _repr_html_(self) -> str:
        from lithops_mini.html.notebook import executor_html

        with self._lock:
            jobs = [(_title(job), job.counters) for job in self._jobs]
        facts = {"backend": self.config.backend, "storage": self.config.storage, "state": self._state}
        return executor_html(f"executor {self.executor_id}", facts, jobs)

    # -- ending

    def clean(self) -> None:
        """Remove everything the ended jobs of this executor have stored, their records and cloud objects too.

        Large results that have not been read are lost.
        """
        with self._lock:
            ended = [job for job in self._jobs if job.settled()]
            all_ended = len(ended) == len(self._jobs)
            if all_ended:
                self._stored_code.clear()
        for job in ended:
            job.over.wait()
        self._recorder.flush()
        prefixes = [
            prefix for job in ended for prefix in (records.job_prefix(job.id), records.cloudobjects_prefix(job.id))
        ]
        if all_ended:
            prefixes += [records.executor_prefix(self.executor_id), records.cloudobjects_prefix(self.executor_id)]
        for job in ended:
            job.forget_stored()
        for prefix in prefixes:
            manifest.delete_jobs(self._storage, self.config.job.storage_bucket, prefix)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the calls, or cancel them with ``cancel_futures`` or ``wait=False``; then stop the workers.

        Afterwards bulk data is removed from storage if the configuration's ``data_cleaner`` says so and every call
        succeeded; records stay for ``lithops-mini jobs``, and so do large results that nobody has read.
        """
        if self._process != os.getpid():
            return  # a forked child ends: its parent goes on
        with self._lock:
            if self._closed:
                return
            self._closed = True
            jobs = list(self._jobs)
        if cancel_futures or not wait:
            for job in jobs:
                job.cancel()
        try:
            for job in jobs:
                while job.rest(1.0):
                    continue
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
        finally:
            self._dispatcher.close()
            self._compute.close()
            self._dispatcher.join()
            self._recorder.close()
            if self._tracer is not None:
                self._tracer.close()
            _open_executors.discard(self)
        if self.config.job.data_cleaner and not any(job.counters.failed for job in jobs):
            self._remove_bulk(jobs)

    def unfinished(self) -> int:
        """How many calls have not ended."""
        if self._process != os.getpid():
            return 0  # they are its parent's
        with self._lock:
            return sum(job.counters.total - job.counters.done for job in self._jobs)

    def _remove_bulk(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.forget_stored()
        keep = {key for job in jobs if not job.consumed for key in job.unread()}
        bucket = self.config.job.storage_bucket
        keys = manifest.bulk_keys(self._storage, bucket, self.executor_id)
        self._storage.delete(bucket, [key for key in keys if key not in keep])
        if keep:
            logger.info("%d large results nobody has read stay in the bucket %r", len(keep), bucket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=kind is not None)

    # -- from arguments to a job

    def _options(self, *given: Any, budget: float | None = None, **more: Any) -> CallOptions:
        """``options.read``, with the ``budget`` in dollars."""
        job = self.config.job
        options = read_options(
            job, self.config.backend, self._compute.max_time, self._compute.most_time, *given, **more
        )
        check_amount("budget", budget, "dollars")
        limit = job.budget if budget is None else budget
        if limit is None:
            return options
        return replace(options, budget=self._dispatcher.budget(limit, self._platform, self._prices))

    def _remember(self, futures: FutureList) -> FutureList:
        with self._lock:
            if len(self._unread) >= self._most_unread:
                # Somebody who reads futures one by one never asks for them all at once.
                self._unread = [unread for unread in self._unread if not all(f.was_read for f in unread)]
                self._most_unread = max(_UNREAD, 2 * len(self._unread))  # looking again each time would add up
            self._unread.append(futures)
        return futures

    def _start(
        self,
        kind: str,
        function: Callable[..., Any],
        planned: Sequence[PlannedCall],
        filled: Sequence[str],
        options: CallOptions,
        *,
        upstream: Sequence[Job] = (),
        followed: bool = False,
        spawn: float = 1.0,
    ) -> tuple[Job, list[ResponseFuture[Any]]]:
        """Stage the calls and hand them to the dispatcher: the one way every call goes."""
        submitted = time.time()
        stage = Stage()
        pickled = stage.function(function)
        room = self._inline(_INLINE, self._compute.max_payload)
        inputs = Inputs(room)
        for index, call in enumerate(planned):
            inputs.add(*stage.arguments(call.args, call.kwargs, f"the input of call {index}"))
        if options.runtime_memory == "auto":
            options = replace(options, runtime_memory=memory.fitting(planned, inputs.longest))
        code = stage.code(pickled, options.include_modules, options.exclude_modules)
        code_room = self._inline(_INLINE_CODE, self._compute.max_payload)
        inline_code = len(code.data) <= code_room
        self._check_open()
        self._check_fits("an input", inputs.longest, room)
        self._check_fits("the function with its modules", len(code.data), code_room)
        job_id = f"{self.executor_id}-{kind[0].upper()}{next(self._numbers):03d}"
        key = job_key(job_id)
        header = self._header(job_id, key, code, inline_code, filled, options, inputs.upstream)
        job = Job(
            job_id,
            name_of(function),
            header=wire.encode_header(header),
            memory=header["memory"],
            timeout=header["timeout"],
            code=code.data if inline_code else b"",
            key=key,
            policy=options.policy,
            submitted=submitted,
            upstream=upstream,
            home=self._home,
            stop=self._dispatcher.stop,
        )
        job.followed = followed
        if self._tracer is not None:
            job.when_over = partial(self._trace, self._tracer, self._tracer.context())
        job.platform = self._platform
        job.budget = options.budget
        bucket = self.config.job.storage_bucket
        if not inline_code and code.sha256 not in self._stored_code:
            self._storage.put(bucket, records.code_key(self.executor_id, code.sha256), code.data)
            self._stored_code.add(code.sha256)
        if inputs.bulk:
            self._storage.put(bucket, records.inputs_key(job_id), inputs.bulk)
        job.add_calls(inputs, [call.source for call in planned], spawn)
        settings = {
            "timeout": options.timeout,
            "runtime_memory": options.runtime_memory,
            "retries": options.policy.retries,
            "retry_exceptions": options.policy.told_exceptions,
            "on_oom": options.policy.on_oom,
            "budget": None if options.budget is None else options.budget.limit,
        }
        encode = partial(
            manifest.encode_manifest,
            job,
            job.calls,
            code,
            kind=kind,
            backend=self.config.backend,
            storage=self.config.storage,
            settings=settings,
        )
        futures = [call.future for call in job.calls]  # the job lets go of them when it ends
        with self._lock:
            # From here on shutdown() knows the job; it has not waited for what was still being stored.
            closed = self._closed
            if not closed:
                self._jobs.append(job)
        if closed:
            manifest.delete_jobs(self._storage, bucket, records.job_prefix(job_id))
            self._check_open()
        for other in upstream:
            other.consumed = True
        try:
            if job.calls:  # a job without any has no end that would be recorded
                self._recorder.begin(job, encode)
            self._dispatcher.add(job)
        except BaseException:  # Ctrl-C, or no thread can be started: nobody must wait for what nobody sends
            job.cancel()
            raise
        return job, futures

    def _trace(self, tracer: tracing.SpanSender, parent: Any, job: Job) -> None:
        facts = {"backend": self.config.backend, "storage": self.config.storage, "executor": self.executor_id}
        tracer.send(
            lambda: tracing.EndedJob(job.id, job.name, facts, job.stats(), job.failures(), job.attempts, parent)
        )

    def _inline(self, usual: int, most: int) -> int:
        """How many bytes of one thing travel in a message of at most so many, as far as there is a choice."""
        return min(usual, most // 4) if self._stores else most // 3

    def _check_fits(self, what: str, size: int, room: int) -> None:
        """Raise ``InputError`` for what has so many bytes if messages have no room for it, and workers no storage."""
        if size > room and not self._stores:
            name = self.config.backend
            raise InputError(
                f"{what} takes {format_size(size)}, messages to {name} have room for {format_size(room)}, and its"
                " workers do not reach the storage of this machine: configure an object storage"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise LithopsMiniError("the executor has been shut down: make a new one")
        if os.getpid() != self._process:
            raise LithopsMiniError("the executor belongs to another process, of which this is a fork: make a new one")

    def _header(
        self,
        job_id: str,
        key: bytes,
        code: Code,
        inline_code: bool,
        filled: Sequence[str],
        options: CallOptions,
        upstream: Iterable[Job],
    ) -> dict[str, Any]:
        return {
            "version": wire.VERSION,
            "job": job_id,
            "keys": {job_id: key.hex()} | {job.id: job.key.hex() for job in upstream if job.home == self._home},
            "storage": self.config.storage if self._stores else "",
            "storage_options": self._storage_options,
            "bucket": self.config.job.storage_bucket,
            "inline": self._inline(_INLINE, self._compute.max_reply),
            "env": {**self._environment, **options.extra_env},
            "inject": list(filled),
            "code": {
                "sha256": code.sha256,
                "size": len(code.data),
                "key": "" if inline_code else records.code_key(self.executor_id, code.sha256),
            },
            "modules": code.modules,
            "timeout": options.timeout,
            "memory": options.runtime_memory << 20 if isinstance(options.runtime_memory, int) else None,
        }


def _title(job: Job) -> str:
    return stage_name(job.name, job.id)


def _stages(jobs: Iterable[Job]) -> list[tuple[str, list[CallStats]]]:
    return [(_title(job), job.stats()) for job in jobs]


def _attempts(jobs: Iterable[Job]) -> dict[str, list[Attempt]]:
    return {_title(job): list(job.attempts) for job in jobs}


def function_executor(
    backend: str | None = None,
    storage: str | None = None,
    profile: str | None = None,
    config: Mapping[str, Any] | None = None,
    config_file: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> FunctionExecutor:
    """Make a ``FunctionExecutor`` on the configured, or the given, compute and storage backends.

    ``backend`` and ``storage`` are names (``localhost``, ``inline``, ...); ``profile`` is one of the profiles in the
    configuration file, ``config_file`` the file if it is not at a usual place, ``config`` a dict instead of a file;
    ``settings`` are single settings, such as ``max_workers=4``. See ``docs/configuration.md``.
    """
    return FunctionExecutor(backend, storage, profile, config, config_file, **settings)


def localhost_executor(storage: str | None = None, **settings: Any) -> FunctionExecutor:
    """``function_executor(backend="localhost", ...)``: calls in processes of this machine."""
    return function_executor("localhost", storage, **settings)


def docker_executor(storage: str | None = None, **settings: Any) -> FunctionExecutor:
    """``function_executor(backend="docker", ...)``: calls in containers of a Docker engine."""
    return function_executor("docker", storage, **settings)


def openwhisk_executor(storage: str | None = None, **settings: Any) -> FunctionExecutor:
    """``function_executor(backend="openwhisk", ...)``: calls in actions of an OpenWhisk."""
    return function_executor("openwhisk", storage, **settings)


def ibm_cf_executor(storage: str | None = None, **settings: Any) -> FunctionExecutor:
    """``function_executor(backend="ibm_cf", ...)``: calls in actions of IBM Cloud Functions."""
    return function_executor("ibm_cf", storage, **settings)


def knative_executor(storage: str | None = None, **settings: Any) -> FunctionExecutor:
    """``function_executor(backend="knative", ...)``: calls in services of Knative on a Kubernetes cluster."""
    return function_executor("knative", storage, **settings)


@atexit.register
def _close_open_executors() -> None:
    """Workers and unwritten records of executors that nobody has shut down; their calls are cancelled."""
    for executor in list(_open_executors):
        if left := executor.unfinished():
            text = (
                "%d calls had not ended when the program did and are cancelled: get_result() would have waited for them"
            )
            logger.warning(text, left)
        with contextlib.suppress(LithopsMiniError):
            executor.shutdown(wait=False)
