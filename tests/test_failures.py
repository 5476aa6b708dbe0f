"""The catalogue of failures: what README says a person sees, row by row, has a test that really breaks the thing.

`ROWS` names it. A row of README without a test, or a test that is gone, fails here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROWS: dict[str, tuple[str, ...]] = {
    # files
    "MP4 cut before its index": ("test_catalogue.py::test_truncated_mp4_without_moov",),
    "text, an empty file, a folder": (
        "test_catalogue.py::test_text_or_zero_bytes",
        "test_capture.py::test_folder_and_forbidden_file_are_input_errors",
    ),
    "a file cut in the middle": ("test_catalogue.py::test_truncated_faststart",),
    "damaged packets": (
        "test_catalogue.py::test_corrupt_packets",
        "test_feeds.py::test_damage_costs_pictures_and_is_counted",
    ),
    "sound without picture, or no picture at all": (
        "test_catalogue.py::test_audio_only",
        "test_catalogue.py::test_zero_frames",
    ),
    "a size change in mid-file": (
        "test_catalogue.py::test_size_change_makes_a_new_part",
        "test_catalogue.py::test_size_change_can_be_scaled_to_fit",
    ),
    "odd sizes": (
        "test_catalogue.py::test_odd_size",
        "test_sinks.py::test_odd_sizes_are_padded_by_one_repeated_pixel_and_said",
        "test_sinks.py::test_odd_sizes_are_kept_where_the_encoder_holds_them",
    ),
    "no times (raw H.264)": (
        "test_catalogue.py::test_missing_pts",
        "test_capture.py::test_raw_pictures_without_a_rate_are_taken_at_25",
    ),
    "times that repeat or jump back": (
        "test_catalogue.py::test_backward_pts_of_joined_transport_files",
        "test_capture.py::test_repeated_times_are_parted_and_the_rest_left_alone",
    ),
    "interlaced pictures": ("test_catalogue.py::test_interlaced",),
    "a rotated picture": ("test_catalogue.py::test_rotation", "test_capture.py::test_rotated_files_come_upright"),
    "alpha": ("test_catalogue.py::test_alpha",),
    "10 bits": ("test_catalogue.py::test_depth_and_subsampling_are_kept",),
    "gray": ("test_catalogue.py::test_gray_becomes_neutral_colour_that_plays_everywhere_and_stays_gray_on_request",),
    "a full disk": ("test_cli.py::test_full_disk_is_5_and_keeps_a_playable_part",),
    "Ctrl-C": (
        "test_cli.py::test_interrupt_is_130_and_keeps_a_playable_part",
        "test_cli.py::test_a_second_press_ends_a_job_at_once_whose_end_hangs",
        "test_live_cli.py::test_an_interrupt_ends_it_in_time_with_the_summary",
        "test_live_cli.py::test_an_interrupt_while_it_loads_is_one_line",
    ),
    "weights changed, or a manifest that is not theirs": (
        "test_engine.py::test_weights_with_one_bit_turned_are_refused",
        "test_engine.py::test_a_manifest_that_lies_about_its_weights_is_refused",
        "test_fuzz.py::test_damaged_weights_are_refused_every_time",
    ),
    "a DICOM object that holds no video": ("test_dicom.py::test_a_syntax_that_is_no_video_is_named_and_3",),
    "a DICOM object that was cut": (
        "test_dicom.py::test_a_cut_object_gives_what_is_there_and_is_incomplete",
        "test_dicom.py::test_a_cut_mp4_is_one_line_and_3",
    ),
    "a DICOM video without times": ("test_dicom.py::test_times_are_the_objects_where_the_bitstream_has_none",),
    "a result that no DICOM video holds": (
        "test_dicom_results.py::test_what_no_syntax_holds_is_refused_with_the_reason",
        "test_dicom_results.py::test_too_large_a_result_is_refused_before_it_is_made",
    ),
    "DICOM without pydicom": ("test_dicom.py::test_missing_pydicom_names_the_extra",),
    # live
    "a URL that is not there yet, a source that dies": (
        "test_feeds.py::test_a_server_that_is_killed_and_restarted_is_found_again",
        "test_live.py::test_what_is_shown_before_the_first_frame_is_a_slate",
    ),
    "a feed that hangs, a black hole": (
        "test_feeds.py::test_a_black_hole_is_given_up_and_tried_again",
        "test_feeds.py::test_a_server_that_falls_silent_is_lost",
        "test_feeds.py::test_a_reader_that_hangs_is_ended_and_replaced",
    ),
    "a device unplugged": ("test_feeds.py::test_a_path_that_vanishes_is_lost_and_taken_up_when_it_is_back",),
    "a device that is busy or has no such mode": (
        "test_devices.py::test_a_device_that_is_busy_or_has_no_such_mode_is_refused_with_the_modes_it_has",
    ),
    "a change of size, rate, pixel format or colour": (
        "test_feeds.py::test_pictures_may_change_size_and_format_in_mid_feed",
        "test_feeds.py::test_a_colour_change_is_told",
        "test_live.py::test_a_size_change_is_survived_through_bicubic_and_warmed_again",
    ),
    "a device or file that is not there when it begins": (
        "test_live_cli.py::test_what_cannot_be_is_refused_in_one_line",
    ),
    "no picture at all until `-t` ends it": (
        "test_live_cli.py::test_a_session_of_a_set_time_without_a_picture_is_a_failure_in_one_line",
    ),
    "Ctrl-C, SIGTERM, a closed terminal, a lost ssh": (
        "test_live_cli.py::test_an_interrupt_ends_it_in_time_with_the_summary",
        "test_live_cli.py::test_a_closed_terminal_ends_it_and_recording_and_original_are_complete",
    ),
    "a slow machine": ("test_live.py::test_a_slow_generator_costs_detail_and_never_time",),
    "a generator that fails, hangs, or makes no picture": (
        "test_live.py::test_a_generator_that_fails_becomes_bicubic_with_an_alarm_and_recovers",
        "test_live.py::test_a_generator_that_hangs_is_left_behind_and_the_session_ends_in_time",
        "test_live.py::test_a_generator_that_makes_no_picture_becomes_bicubic",
        "test_live_faults.py::test_numbers_that_are_none_become_bicubic_with_an_alarm_and_are_never_shown",
    ),
    "a folder that cannot be recorded to": (
        "test_live_cli.py::test_a_folder_that_cannot_be_recorded_to_is_refused_before_anything_begins",
    ),
    "a stopped terminal (Ctrl-S)": (
        "test_live_cli.py::test_a_stopped_terminal_holds_up_neither_the_session_nor_its_end",
    ),
    "a disk nearly full": (
        "test_live_cli.py::test_recording_and_original_together_leave_the_reserve_alone",
        "test_live_recording.py::test_a_full_disk_stops_the_recording_before_the_reserve_and_the_recorder_lives_on",
    ),
    "a kill, a power cut": ("test_live_recording.py::test_a_kill_at_any_moment_costs_no_more_than_the_last_second",),
    "a kill of `batch`": (
        "test_batch.py::test_kills_at_any_moment_lose_nothing_and_repeat_nothing",
        "test_batch.py::test_continue_alone_knows_inputs_settings_and_names",
    ),
    "a damaged journal of `batch`": (
        "test_fuzz_archives.py::test_a_journal_of_other_data_says_what_to_do",
        "test_fuzz_archives.py::test_damaged_journals_are_refused_in_one_line_or_read",
    ),
    "a viewer that is slow, or never reads": (
        "test_web.py::test_a_slow_viewer_drops_for_itself_only_and_all_get_the_same_bytes",
        "test_web.py::test_a_viewer_that_never_reads_is_dropped_and_holds_nobody_up",
    ),
    "a page without its token, from another site, or hostile": (
        "test_web.py::test_a_wrong_token_gets_nothing_and_its_sender_must_wait_after_some",
        "test_web.py::test_another_site_cannot_open_the_socket_even_with_the_cookie",
        "test_web.py::test_no_path_leads_out_of_the_page",
    ),
    # GPUs
    "a GPU that cannot be used": (
        "test_lacks.py::test_a_torch_without_cuda_and_an_old_driver_are_named",
        "test_lacks.py::test_a_gpu_that_cannot_be_loaded_on_gives_way_to_the_processor",
        "test_lacks.py::test_a_job_says_once_why_it_runs_on_the_processor",
        "test_choosing.py::test_a_runtime_by_name_without_a_gpu_is_one_line",
    ),
    "one of several GPUs that cannot run it": (
        "test_dealing.py::test_all_gpus_are_those_that_can_run_it_and_the_others_are_named",
        "test_dealing.py::test_a_gpu_that_cannot_run_it_is_named",
    ),
    "a GPU machine without a C compiler": (
        "test_cuda.py::test_triton_that_cannot_launch_gives_way_to_torch",
        "test_cuda.py::test_what_is_loaded_on_a_gpu_says_that_triton_cannot_launch_there",
    ),
    "a runtime that computes wrongly on a GPU": (
        "test_choosing.py::test_a_runtime_that_computes_wrongly_never_wins_and_is_named",
    ),
    # both
    "a variable rate, B-frames, negative times": (
        "test_catalogue.py::test_variable_frame_rate",
        "test_catalogue.py::test_b_frames_and_ntsc_rate",
        "test_catalogue.py::test_negative_pts",
    ),
    "full range, no colour tags": (
        "test_catalogue.py::test_full_range",
        "test_catalogue.py::test_untagged_colour",
    ),
    "a GPU without memory, or lost": (
        "test_device_upscaler.py::test_frame_without_memory_is_launched_in_a_few_patches",
        "test_fallback.py::test_a_job_whose_gpu_fails_goes_on_and_says_so",
    ),
    "one of several GPUs lost": (
        "test_dealing.py::test_whichever_gpus_fail_every_frame_comes_out_once_in_order_with_the_same_picture",
        "test_dealing.py::test_a_job_goes_on_with_the_gpus_that_are_left_and_then_the_processor",
    ),
    "more GPUs asked for than there are": (
        "test_dealing.py::test_more_gpus_than_there_are_is_one_line_before_anything_is_made",
        "test_cli.py::test_gpus_that_are_not_there_are_4_and_numbers_that_cannot_be_2",
    ),
    "a plan of another GPU or version": ("test_plans.py::test_a_plan_for_another_anything_is_never_loaded",),
    "a network that makes numbers that are none": (
        "test_faults.py::test_numbers_that_are_none_end_the_job_and_say_what_to_do",
    ),
}

CATALOGUE: dict[str, tuple[str, ...]] = {
    "truncated MP4, no moov": ("MP4 cut before its index",),
    "text / zero bytes": ("text, an empty file, a folder",),
    "truncated faststart": ("a file cut in the middle",),
    "corrupt packets": ("damaged packets",),
    "zero frames / audio-only": ("sound without picture, or no picture at all",),
    "size change": ("a size change in mid-file", "a change of size, rate, pixel format or colour"),
    "odd size": ("odd sizes",),
    "VFR": ("a variable rate, B-frames, negative times",),
    "B-frames, negative PTS": ("a variable rate, B-frames, negative times",),
    "missing PTS (raw H.264)": ("no times (raw H.264)",),
    "repeated/backward PTS": ("times that repeat or jump back",),
    "10-bit": ("10 bits",),
    "gray": ("gray",),
    "yuvj, full range": ("full range, no colour tags",),
    "untagged colour": ("full range, no colour tags",),
    "interlaced": ("interlaced pictures",),
    "rotation": ("a rotated picture",),
    "alpha": ("alpha",),
    "device unplugged": ("a device unplugged",),
    "capture busy / wrong mode": ("a device that is busy or has no such mode",),
    "RTSP drop/hang": ("a URL that is not there yet, a source that dies", "a feed that hangs, a black hole"),
    "disk full": ("a full disk", "a disk nearly full"),
    "SIGINT": ("Ctrl-C", "Ctrl-C, SIGTERM, a closed terminal, a lost ssh"),
    "SIGKILL/power": ("a kill, a power cut", "a kill of `batch`"),
    "GPU OOM": ("a GPU without memory, or lost",),
    "inference stall or NaN": (
        "a generator that fails, hangs, or makes no picture",
        "a network that makes numbers that are none",
    ),
    "engine: other GPU/version": ("a plan of another GPU or version",),
    "weights tampered": ("weights changed, or a manifest that is not theirs",),
    "viewer slow/leaves": ("a viewer that is slow, or never reads",),
}
"""What the field's catalogue of failures lists, and the rows above that answer it."""

SHARED = ROOT.parent / "shared" / "facts" / "clinical.md"


def claims_of(room: str) -> set[str]:
    """Return the names of the tests of a room."""
    tree = ast.parse((ROOT / "tests" / room).read_text(encoding="utf-8"))
    return {item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef) and item.name.startswith("test_")}


def readme_rows() -> set[str]:
    """Return the first cells of README's tables of what comes and what happens."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?m)^\| what (?:comes|happens live) \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text)
    assert len(tables) == 2
    return {line.split("|")[1].strip() for table in tables for line in table.splitlines()}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_tests(row: str) -> None:
    for place in ROWS[row]:
        room, _, name = place.partition("::")
        assert name in claims_of(room), place


def test_readme_says_what_a_person_sees_in_every_row_and_nothing_untested() -> None:
    assert readme_rows() == set(ROWS)


@pytest.mark.parametrize("case", CATALOGUE)
def test_every_case_of_the_catalogue_has_rows(case: str) -> None:
    assert CATALOGUE[case]
    assert set(CATALOGUE[case]) <= set(ROWS)


@pytest.mark.skipif(not SHARED.is_file(), reason="the catalogue is not beside the repository")
def test_no_case_of_the_catalogue_is_left_out() -> None:
    table = SHARED.read_text(encoding="utf-8").partition("## Failure catalogue")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert set(rows[2:]) == set(CATALOGUE)
